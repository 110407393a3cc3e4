-- Output tokens per second after the first token, by model, of streamed answers that ended well (reasoning left out).
WITH answers AS (
  SELECT
    request_model AS model,
    coalesce(output_tokens, 0) - coalesce(reasoning_tokens, 0) AS tokens,
    date_diff('ms', first_token_time, response_time) AS duration
  FROM table(llm_calls)
  WHERE `stream` AND outcome = 'ok' AND first_token_time IS NOT NULL
), speeds AS (
  SELECT model, (tokens - 1) * 1000.0 / duration AS speed
  FROM answers
  WHERE tokens > 1 AND duration > 0
)
SELECT
  model,
  count() AS calls,
  quantile(speed, 0.5) AS p50,
  quantile(speed, 0.9) AS p90,
  quantile(speed, 0.95) AS p95,
  quantile(speed, 0.99) AS p99
FROM speeds
GROUP BY model
ORDER BY calls DESC, model
