-- purpose: What drift needs of each distribution, so that a pair costs two dot products:
--   KL(p, q) + KL(q, p) = p.ln p + q.ln q - p.ln q - q.ln p.
-- grain: one row per group
-- parameters: distributions: the name, as text, of a table, view or CTE with the columns grp, component, bin and
--   probability; weights: nine numbers, how much each component counts (default NULL: its explained_variance_ratio)
-- columns: grp; p: its 630 probabilities in the order of component and bin; weighted_log: their logarithms, each times the
--   weight of its component; own: dot product of the two
-- nulls: no rows without distributions
-- example: with halves as (from distributions(layer_id % 2)) select grp, own from drift_vectors('halves')
create macro drift_vectors(distributions, weights := null) as table
select
    grp,
    list(probability order by component, bin) as p,
    list(
        ln(probability)
        * case
            when weights is null then explained_variance_ratio
            when len(weights) = 9 then weights[component + 1]
            else error('weights has ' || len(weights) || ' numbers; expected nine, one a component')
        end
        order by component, bin) as weighted_log,
    list_dot_product(p, weighted_log) as own
from (select grp, component, bin, probability from query_table(distributions))
join basis using (component)
group by grp;
