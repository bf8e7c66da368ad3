-- purpose: Drift of two rows of drift_vectors.
-- parameters: x, y: rows of drift_vectors
-- units: nats times the unit of the weights
-- nulls: NULL for NULL
-- example: with halves as (from distributions(layer_id % 2)), vectors as (from drift_vectors('halves'))
--   select drift_of_vectors(x, y) from vectors as x, vectors as y
create macro drift_of_vectors(x, y) as
    case
        when x.own is not null and y.own is not null
            then greatest(  -- rounding may leave a hair below zero
                0,
                (x.own + y.own) - (list_dot_product(x.p, y.weighted_log) + list_dot_product(y.p, x.weighted_log)))
    end;
