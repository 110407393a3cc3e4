-- Percentiles by model of the time, in milliseconds, until the first generated token of a streamed answer came.
WITH waits AS (
  SELECT request_model AS model, date_diff('ms', request_time, first_token_time) AS wait
  FROM table(llm_calls)
  WHERE `stream` AND first_token_time IS NOT NULL
)
SELECT
  model,
  count() AS calls,
  quantile(wait, 0.5) AS p50,
  quantile(wait, 0.9) AS p90,
  quantile(wait, 0.95) AS p95,
  quantile(wait, 0.99) AS p99
FROM waits
GROUP BY model
ORDER BY calls DESC, model
