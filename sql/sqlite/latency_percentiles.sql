-- Percentiles by model of the time, in milliseconds, that calls took which were answered well.
SELECT
  request_model AS model,
  count(*) AS calls,
  quantile(latency_ms, 0.5) AS p50,
  quantile(latency_ms, 0.9) AS p90,
  quantile(latency_ms, 0.95) AS p95,
  quantile(latency_ms, 0.99) AS p99
FROM llm_calls
WHERE outcome = 'ok'
GROUP BY model
ORDER BY calls DESC, model
