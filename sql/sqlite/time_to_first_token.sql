-- Percentiles by model of the time, in milliseconds, until the first generated token of a streamed answer came.
SELECT
  request_model AS model,
  count(*) AS calls,
  quantile(time_to_first_token_ms, 0.5) AS p50,
  quantile(time_to_first_token_ms, 0.9) AS p90,
  quantile(time_to_first_token_ms, 0.95) AS p95,
  quantile(time_to_first_token_ms, 0.99) AS p99
FROM llm_calls
WHERE stream AND time_to_first_token_ms IS NOT NULL
GROUP BY model
ORDER BY calls DESC, model
