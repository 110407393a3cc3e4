-- Proton 3.x: fills llm_calls_per_minute (see rollup_stream.sql) from the calls that come from now on (untested here).
--
-- As rollup_view_v1.sql but for its last line, which Proton 1.6 does not know.
CREATE MATERIALIZED VIEW IF NOT EXISTS llm_calls_rollup INTO llm_calls_per_minute AS
SELECT
  window_start AS minute,
  request_model AS model,
  outcome,
  count() AS calls,
  count_if(response_status_code = 429) AS limited,
  sum(input_tokens) AS input,
  sum(output_tokens) AS output,
  median(date_diff('ms', request_time, response_time)) AS latency_p50,
  p90(date_diff('ms', request_time, response_time)) AS latency_p90,
  max(date_diff('ms', request_time, response_time)) AS latency_max
FROM tumble(llm_calls, response_time, 1m)
GROUP BY window_start, window_end, request_model, outcome
EMIT AFTER WINDOW CLOSE WITH DELAY 5s
