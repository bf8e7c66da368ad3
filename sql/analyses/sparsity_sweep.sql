-- purpose: What share of the filters of each group is sparse at chosen thresholds: how much could be pruned at what price.
-- source: this project
-- parameters: axis (column, task): whose values are the groups; thresholds (varchar, 0.001 and 0.002 and 0.005 to 0.5):
--   comma-separated shares of the layer's largest peak, of at most two significant digits from 1e-5 to 1
-- grain: one row per group and threshold
-- columns: grp; eps: threshold; n_sparse: filters whose peak is below eps times the largest peak of their layer; sparsity:
--   their share
-- reading: at 0.01 it is the sparsity of quality. A curve that rises early has filters that do next to nothing; one that
--   rises late has filters of like size, and no threshold that separates them. Both columns are exact; for a threshold in
--   between sparsity_at gives bounds
-- nulls: n_sparse and sparsity of a group whose layers have NaN or infinite weights; layers without a value of axis form no
--   group
-- example: warehouse analyses cnn.warehouse sparsity_sweep --set axis=visual_category --set thresholds=0.001,0.01,0.1
-- portable: yes
with chosen as (
    select distinct trim(unnest(string_split(
        coalesce(getvariable('thresholds')::varchar, '0.001,0.002,0.005,0.01,0.02,0.05,0.1,0.2,0.5'), ','))) as threshold
),
checked as (
    select
        case
            when edges.eps is not null then edges.eps
            else error(
                'threshold ''' || threshold || ''' is not a number of at most two significant digits from 1e-5 to 1; '
                || 'for others see sparsity_at')
        end as eps
    from chosen
    left join peak_edges as edges on edges.eps = try_cast(threshold as double)
)
select grp, eps, n_sparse, sparsity
from sparsity_curve(struct_extract(layer_meta, coalesce(getvariable('axis')::varchar, 'task')))
where eps in (select checked.eps from checked)
order by grp, eps;
