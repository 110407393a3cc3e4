-- Live: tokens by model in each minute that has passed; the query never ends.
-- A window is told when a later call has ended. Add, to wait for what was delivered late,
--   Proton 1.6: EMIT STREAM AFTER WATERMARK WITH DELAY 5s
SELECT
  window_start,
  request_model AS model,
  count() AS calls,
  sum(input_tokens) AS input,
  sum(output_tokens) AS output
FROM tumble(llm_calls, response_time, 1m)
GROUP BY window_start, window_end, request_model
