-- Output tokens per second after the first token, by model, of streamed answers that ended well (reasoning left out).
WITH speeds AS (
  SELECT
    request_model AS model,
    (output_tokens - coalesce(reasoning_tokens, 0) - 1) * 1000.0 / (latency_ms - time_to_first_token_ms) AS speed
  FROM llm_calls
  WHERE stream AND outcome = 'ok' AND latency_ms > time_to_first_token_ms
    AND output_tokens - coalesce(reasoning_tokens, 0) > 1
)
SELECT
  model,
  count(*) AS calls,
  quantile(speed, 0.5) AS p50,
  quantile(speed, 0.9) AS p90,
  quantile(speed, 0.95) AS p95,
  quantile(speed, 0.99) AS p99
FROM speeds
GROUP BY model
ORDER BY calls DESC, model
