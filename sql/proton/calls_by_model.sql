-- How many calls each model got, how many failed, and when the first and the last of them began.
SELECT
  request_model AS model,
  operation,
  count() AS calls,
  count_if(outcome != 'ok') AS failed,
  count_if(`stream`) AS streamed,
  min(request_time) AS first_call,
  max(request_time) AS last_call
FROM table(llm_calls)
GROUP BY model, operation
ORDER BY calls DESC, model, operation
