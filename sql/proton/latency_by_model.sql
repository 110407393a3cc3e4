-- How long calls took for each model that a request named, in milliseconds: the specified query, as it stands.
WITH llm_latency AS (SELECT request_content:model AS model, date_diff('ms', request_time, response_time) AS latency
                     FROM table(llm_calls))
SELECT max(latency), min(latency), avg(latency), p90(latency), model FROM llm_latency GROUP BY model
