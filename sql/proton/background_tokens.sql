-- Tokens of answers that were generated in the background: the calls that read them later tell, each answer counts once.
WITH told AS (
  SELECT
    response_id,
    response_model,
    input_tokens,
    json_extract_int(response_json, 'usage', 'input_tokens')
      + json_extract_int(response_json, 'usage', 'prompt_tokens') AS tokens_in,
    json_extract_int(response_json, 'usage', 'output_tokens')
      + json_extract_int(response_json, 'usage', 'completion_tokens') AS tokens_out
  FROM table(llm_calls)
  WHERE operation IN ('responses', 'responses.retrieve', 'threads') AND response_id != ''
), answers AS (
  SELECT
    max(response_model) AS model,
    count_if(input_tokens IS NOT NULL) AS counted,
    max(tokens_in) AS most_in,
    max(tokens_out) AS most_out
  FROM told
  GROUP BY response_id
)
SELECT model, count() AS answers, sum(most_in) AS input, sum(most_out) AS output
FROM answers
WHERE counted = 0 AND most_in + most_out > 0
GROUP BY model
ORDER BY input + output DESC, model
