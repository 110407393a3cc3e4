-- The twenty calls that took longest, with what is needed to find them: when, what, how long, how it ended.
SELECT
  request_time,
  date_diff('ms', request_time, response_time) AS latency,
  date_diff('ms', request_time, first_token_time) AS first_token,
  server_processing_ms AS server_time,
  request_model AS model,
  operation,
  outcome,
  output_tokens,
  call_id,
  request_id
FROM table(llm_calls)
ORDER BY latency DESC, call_id
LIMIT 20
