-- purpose: Drift from one distribution to all others that a table or a CTE holds, however many there are.
-- grain: one row per other group
-- parameters: distributions: the name, as text, of a table, view or CTE with the columns grp, component, bin and
--   probability; reference: the one group
-- columns: grp: another group; drift: in nats
-- nulls: no rows if reference has no distribution
-- example: with tasks as (from distributions(task)) from drift_from('tasks', 'Classification') order by drift
create macro drift_from(distributions, reference) as table
with vectors as (
    from drift_vectors(distributions)
),
one as (
    from vectors
    where grp = (select reference)
)
select vectors.grp, drift_of_vectors(vectors, one) as drift
from vectors
cross join one
where vectors.grp <> one.grp
order by vectors.grp;
