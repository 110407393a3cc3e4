-- Calls, failures and tokens by tag and its value; a call with several tags counts for each of them.
SELECT
  tag.key AS tag,
  tag.value AS value,
  count(*) AS calls,
  count(*) FILTER (WHERE outcome <> 'ok') AS failed,
  sum(input_tokens) AS input,
  sum(output_tokens) AS output,
  quantile(latency_ms, 0.5) AS latency_p50
FROM llm_calls, json_each(llm_calls.tags) AS tag
GROUP BY tag.key, tag.value
ORDER BY calls DESC, tag.key, tag.value
