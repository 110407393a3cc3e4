-- How often each model answered 429 (too many requests, or no quota), and how many calls were an SDK's retries.
SELECT
  request_model AS model,
  count(*) AS calls,
  count(*) FILTER (WHERE response_status_code = 429) AS limited,
  count(*) FILTER (WHERE retry_count > 0) AS retries,
  100.0 * count(*) FILTER (WHERE response_status_code = 429) / count(*) AS limited_percent
FROM llm_calls
GROUP BY model
HAVING limited > 0 OR retries > 0
ORDER BY limited DESC, retries DESC, model
