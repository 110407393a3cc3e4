-- How long calls took for each model that a request named, in milliseconds: the specified query, on the journal.
WITH llm_latency AS (
  SELECT
    coalesce(CASE WHEN json_valid(request_content) THEN json_extract(request_content, '$.model') END, '') AS model,
    latency_ms AS latency
  FROM llm_calls
)
SELECT max(latency) AS max, min(latency) AS min, avg(latency) AS avg, quantile(latency, 0.9) AS p90, model
FROM llm_latency
GROUP BY model
ORDER BY model
