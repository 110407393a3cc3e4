-- Calls, failures and tokens by tag and its value; a call with several tags counts for each of them.
WITH tagged AS (
  SELECT
    array_join(map_keys(tags)) AS tag,
    tags[tag] AS value,
    outcome,
    input_tokens,
    output_tokens,
    date_diff('ms', request_time, response_time) AS latency
  FROM table(llm_calls)
)
SELECT
  tag,
  value,
  count() AS calls,
  count_if(outcome != 'ok') AS failed,
  sum(input_tokens) AS input,
  sum(output_tokens) AS output,
  quantile(latency, 0.5) AS latency_p50
FROM tagged
GROUP BY tag, value
ORDER BY calls DESC, tag, value
