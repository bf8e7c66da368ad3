-- purpose: Coefficients of a scaled filter on the basis of this warehouse, those that layer_histograms counts.
-- parameters: scaled: a list of nine weights, of a filter that is scaled already
-- example: select filter_id, project(scale(kernel)) from kernels limit 5
create macro project(scaled) as
    -- v.(s - mean) as v.s - v.mean: a lambda may not hold a subquery, so both sides come with the list
    list_transform(
        (
            select list(
                {'loading': loading::double[], 'offset': list_dot_product(loading::double[], mean::double[])}
                order by component)
            from basis
            cross join basis_mean
        ),
        lambda c: list_dot_product(c.loading, scaled) - c.offset);
