-- Several acquisitions in their order, ending with the first refusal, or before the first that comes
-- too late. None goes before the one before it. Answers what `reserve.sql` does, one after the other.
DECLARE
  v_options bigint[] := p_options; v_one bigint[]; v_all bigint[] := '{}';
BEGIN
  FOR k IN 1 .. cardinality(p_weights) LOOP
    v_one := @reserve@(p_lock, p_names[k], p_weights[k], p_tokens[k], v_options, p_rates);
    EXIT WHEN k > 1 AND v_one[@answer_failing@] < 0;
    v_all := v_all || v_one;
    EXIT WHEN v_one[@answer_failing@] <> 0;
    v_options[@told_unusual@] := 1;
    v_options[@told_not_before@] := v_one[@answer_moment@];
  END LOOP;
  RETURN v_all;
END
