-- Calls, failures and tokens by API key, which is known by its keyed hash alone.
SELECT
  api_key_hash AS key,
  count() AS calls,
  count_if(outcome != 'ok') AS failed,
  count_if(response_status_code = 429) AS limited,
  sum(input_tokens) AS input,
  sum(output_tokens) AS output,
  max(request_time) AS last_call
FROM table(llm_calls)
GROUP BY key
ORDER BY calls DESC, key
