-- Several acquisitions in their order, ending with the first refusal, or before the first that comes
-- too late. None goes before the one before it. Answers what `reserve.sql` does, one after the
-- other.
DECLARE
  v_options bigint[] := p_options; v_one bigint[]; v_all bigint[] := '{}';
BEGIN
  FOR k IN 1 .. cardinality(p_weights) LOOP
    v_one := @reserve@(p_lock, p_names[k], p_weights[k], p_tokens[k], v_options, p_rates);
    EXIT WHEN k > 1 AND v_one[1] < 0;
    v_all := v_all || v_one;
    EXIT WHEN v_one[1] <> 1;
    v_options[@unusual@] := 1;
    v_options[@not_before@] := v_one[2];
  END LOOP;
  RETURN v_all;
END
