-- Live: failures by model and outcome, and 429s, in each minute that has passed; the query never ends.
-- A window is told when a later call has ended, and what comes after that is left out of it. Where several proxies share
-- the stream, add as the last line, to wait for the slower ones,
--   Proton 1.6: EMIT STREAM AFTER WATERMARK WITH DELAY 5s
--   Proton 3.x: EMIT AFTER WINDOW CLOSE WITH DELAY 5s      (untested here)
SELECT
  window_start,
  request_model AS model,
  outcome,
  count() AS calls,
  count_if(response_status_code = 429) AS limited
FROM tumble(llm_calls, response_time, 1m)
WHERE outcome != 'ok'
GROUP BY window_start, window_end, request_model, outcome
