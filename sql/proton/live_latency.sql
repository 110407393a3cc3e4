-- Live: calls and their latency, in milliseconds, by model in each minute that has passed; the query never ends.
-- A window is told when a later call has ended, and what comes after that is left out of it. Where several proxies share
-- the stream, add as the last line, to wait for the slower ones,
--   Proton 1.6: EMIT STREAM AFTER WATERMARK WITH DELAY 5s
--   Proton 3.x: EMIT AFTER WINDOW CLOSE WITH DELAY 5s      (untested here)
SELECT
  window_start,
  request_model AS model,
  count() AS calls,
  median(date_diff('ms', request_time, response_time)) AS latency_p50,
  p90(date_diff('ms', request_time, response_time)) AS latency_p90,
  p99(date_diff('ms', request_time, response_time)) AS latency_p99
FROM tumble(llm_calls, response_time, 1m)
GROUP BY window_start, window_end, request_model
