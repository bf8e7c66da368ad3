-- purpose: Drift between the two sides of a list of pairs of models, such as robust models and their normal counterparts.
--   A model counts once per pair that it is in.
-- grain: one row per group of axis
-- parameters: pairs: the name, as text, of a table, view, CTE or CSV file with the columns a and b, each a model by its
--   model_id, file name or name; axis: an expression over the columns of layer_meta and layer_quality, its values are
--   the groups within which the sides are compared (default 'all'); keep: a condition on the same columns, which layers
--   count (default true)
-- columns: grp; drift: in nats; n_layers_a, n_layers_b: layers on each side, counted once per pair
-- nulls: groups that only one side has are missing; a name that no model or several have is an error
-- example: from drift_paired('model_pairs', training_dataset)
create macro drift_paired(pairs, axis := 'all', keep := true) as table
with listed as (
    select a::varchar as a, b::varchar as b
    from query_table(pairs)
),
sides as (
    select 'a' as side, a as listed_model from listed
    union all
    select 'b' as side, b as listed_model from listed
),
resolved as (
    select listed_model, model_id_of(listed_model) as model_id
    from (select distinct listed_model from sides)
),
grouped as (
    from layer_groups(axis, keep := keep)
),
paired as (
    select {'stratum': grouped.grp, 'side': side} as grp, layer_id
    from sides
    join resolved using (listed_model)
    join grouped using (model_id)
),
sizes as (
    select grp, count(*) as n
    from paired
    group by grp
),
distributed as (
    from distributions_of('paired')
),
drifts as (
    from drift_of_distributions('distributed')
    where a.stratum = b.stratum and a.side < b.side
)
select drifts.a.stratum as grp, drift, size_a.n as n_layers_a, size_b.n as n_layers_b
from drifts
join sizes as size_a on size_a.grp = drifts.a
join sizes as size_b on size_b.grp = drifts.b
order by grp;
