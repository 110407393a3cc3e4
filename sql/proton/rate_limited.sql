-- How often each model answered 429 (too many requests, or no quota), and how many calls were an SDK's retries.
WITH counted AS (
  SELECT
    request_model AS model,
    count() AS calls,
    count_if(response_status_code = 429) AS limited,
    count_if(coalesce(retry_count, 0) > 0) AS retries
  FROM table(llm_calls)
  GROUP BY model
)
SELECT model, calls, limited, retries, 100.0 * limited / calls AS limited_percent
FROM counted
WHERE limited > 0 OR retries > 0
ORDER BY limited DESC, retries DESC, model
