-- Takes units out again, all but so many (p_kept). One that was never answered is looked for
-- between two moments.
DECLARE
  v_read bigint; v_own bigint; v_units bigint; v_stored bigint; v_item timestamp; v_void text;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    v_units := @stale@;
    RETURN @answer@;
  END IF;
  @lock@
  v_read := @clock@;
  IF v_read <= p_expires THEN
    v_units := @expired@;
    RETURN @answer@;
  END IF;
  v_void := CASE WHEN NOT p_durable THEN set_config('synchronous_commit', 'off', true) END;
  SELECT seq, units, item_timestamp INTO v_own, v_stored, v_item FROM @table@
    WHERE token = p_token AND claimed_ms IS NOT NULL;
  IF v_own IS NULL THEN
    SELECT seq, units, item_timestamp INTO v_own, v_stored, v_item FROM @table@
      WHERE at_ms BETWEEN p_since AND p_until AND units > 0 AND token = p_token @mine@;
  END IF;
  v_units := greatest(0, v_stored - p_kept);
  IF v_units > 0 THEN
    @take_out@
  END IF;
  RETURN @answer@;
END
