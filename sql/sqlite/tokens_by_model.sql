-- Tokens by the model that answered; cached and reasoning tokens are parts of input and output.
SELECT
  CASE WHEN response_model <> '' THEN response_model ELSE request_model END AS model,
  count(*) AS calls,
  sum(input_tokens) AS input,
  sum(cached_input_tokens) AS cached_input,
  sum(output_tokens) AS output,
  sum(reasoning_tokens) AS reasoning
FROM llm_calls
WHERE input_tokens IS NOT NULL OR output_tokens IS NOT NULL
GROUP BY model
ORDER BY coalesce(sum(input_tokens), 0) + coalesce(sum(output_tokens), 0) DESC, model
