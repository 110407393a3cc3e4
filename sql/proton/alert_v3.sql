-- Proton 3.x only (1.6 has no CREATE ALERT): calls your function tell_failure(string) for failed calls (untested here).
--
-- An alert's query may not aggregate. On either line a program can run live_failure_bursts.sql, and act on its rows.
CREATE ALERT IF NOT EXISTS llm_calls_failed
BATCH 10 EVENTS WITH TIMEOUT 5s
LIMIT 1 ALERTS PER 60s
CALL tell_failure
AS SELECT concat(request_model, ' ', outcome, ' ', error) AS failure FROM llm_calls WHERE outcome != 'ok'
