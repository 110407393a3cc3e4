-- Tokens by the model that answered; cached and reasoning tokens are parts of input and output.
WITH counted AS (
  SELECT
    if(response_model != '', response_model, request_model) AS model,
    count() AS calls,
    sum(input_tokens) AS input,
    sum(cached_input_tokens) AS cached_input,
    sum(output_tokens) AS output,
    sum(reasoning_tokens) AS reasoning
  FROM table(llm_calls)
  WHERE input_tokens IS NOT NULL OR output_tokens IS NOT NULL
  GROUP BY model
)
SELECT model, calls, input, cached_input, output, reasoning
FROM counted
ORDER BY coalesce(input, 0) + coalesce(output, 0) DESC, model
