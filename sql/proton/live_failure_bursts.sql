-- Live: minutes in which five calls or more to a host failed, and at least half of all to it; the query never ends.
-- A window is told when a later call has ended, and what comes after that is left out of it. Where several proxies share
-- the stream, add as the last line, to wait for the slower ones,
--   Proton 1.6: EMIT STREAM AFTER WATERMARK WITH DELAY 5s
--   Proton 3.x: EMIT AFTER WINDOW CLOSE WITH DELAY 5s      (untested here)
SELECT
  window_start,
  server_address,
  count() AS calls,
  count_if(outcome != 'ok' AND outcome != 'client_cancelled') AS failed
FROM tumble(llm_calls, response_time, 1m)
GROUP BY window_start, window_end, server_address
HAVING failed >= 5 AND failed * 2 >= calls
