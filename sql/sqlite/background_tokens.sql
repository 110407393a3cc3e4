-- Tokens of answers that were generated in the background: the calls that read them later tell, each answer counts once.
WITH told AS (
  SELECT *, CASE WHEN json_valid(response_json) THEN response_json ->> '$.usage' END AS usage
  FROM llm_calls
  WHERE operation IN ('responses', 'responses.retrieve', 'threads') AND response_id <> ''
), answers AS (
  SELECT
    max(response_model) AS model,
    count(input_tokens) AS counted,
    max(coalesce(usage ->> '$.input_tokens', usage ->> '$.prompt_tokens')) AS input,
    max(coalesce(usage ->> '$.output_tokens', usage ->> '$.completion_tokens')) AS output
  FROM told
  GROUP BY response_id
)
SELECT model, count(*) AS answers, sum(input) AS input, sum(output) AS output
FROM answers
WHERE counted = 0 AND output IS NOT NULL
GROUP BY model
ORDER BY sum(input) + sum(output) DESC, model
