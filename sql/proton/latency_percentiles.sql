-- Percentiles by model of the time, in milliseconds, that calls took which were answered well.
WITH latencies AS (
  SELECT request_model AS model, date_diff('ms', request_time, response_time) AS latency
  FROM table(llm_calls)
  WHERE outcome = 'ok'
)
SELECT
  model,
  count() AS calls,
  quantile(latency, 0.5) AS p50,
  quantile(latency, 0.9) AS p90,
  quantile(latency, 0.95) AS p95,
  quantile(latency, 0.99) AS p99
FROM latencies
GROUP BY model
ORDER BY calls DESC, model
