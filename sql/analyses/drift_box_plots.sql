-- purpose: How strongly filters shift along different ways to group the layers: box-plot statistics of the drift
--   between all pairs of groups, one box an axis.
-- source: notebook of CNN Filter DB; CVPR 2022, arXiv 2203.15331, on distribution shifts
-- parameters: none
-- grain: one row per axis: task, visual_category, training_dataset, architecture_family, depth_decile, pretrained,
--   op_set, precision, robust
-- columns: axis; n_groups: with filters; pairs: unordered pairs of different groups; mean, min, q1, median, q3, max: of
--   their drift, in nats, quartiles interpolate linearly; whisker_low, whisker_high: the furthest drifts within
--   1.5 (q3 - q1) of the box, else its edge; n_outliers: pairs beyond them
-- reading: a box far up says that the groups of that axis differ. Small groups drift from everything by their size
--   alone (drift_sample_size), which raises axes of many groups, such as training_dataset. For another axis see
--   drift_summary(axis)
-- nulls: all statistics of an axis with fewer than two groups, such as one that the source does not tell
-- example: warehouse analyses cnn.warehouse drift_box_plots
-- portable: yes
with labelled as (
    unpivot (
        select
            layer_id, task, visual_category, training_dataset, architecture_family,
            depth_decile::varchar as depth_decile, pretrained::varchar as pretrained, op_set::varchar as op_set,
            precision, robust::varchar as robust
        from layer_meta
    )
    on task, visual_category, training_dataset, architecture_family, depth_decile, pretrained, op_set, precision, robust
    into name axis value label
),
axes as (
    select
        unnest(range(9)) as position,
        unnest([
            'task', 'visual_category', 'training_dataset', 'architecture_family', 'depth_decile', 'pretrained',
            'op_set', 'precision', 'robust'
        ]) as axis
),
-- numbers group faster than texts
numbered as (
    select axis, label, layer_id, dense_rank() over (order by axis, label) as grp
    from labelled
),
names as (
    select distinct grp, axis, label
    from numbered
),
distributed as (
    from distributions_of('numbered')
),
drifts as (
    select x.axis, x.label as a, y.label as b, drift
    from drift_of_distributions('distributed') as d
    join names as x on x.grp = d.a
    join names as y on y.grp = d.b and y.axis = x.axis
),
counts as (
    select axis, count(*) as n_groups
    from drifts
    where a = b
    group by axis
),
boxes as (
    select
        axis,
        count(*) as pairs,
        avg(drift) as mean,
        min(drift) as min,
        quantile_cont(drift, 0.25) as q1,
        median(drift) as median,
        quantile_cont(drift, 0.75) as q3,
        max(drift) as max
    from drifts
    where a < b
    group by axis
),
whiskers as (
    select
        axis,
        -- interpolated quartiles may lie beyond the furthest drift that counts
        least(any_value(q1), min(drift) filter (drift >= q1 - 1.5 * (q3 - q1))) as whisker_low,
        greatest(any_value(q3), max(drift) filter (drift <= q3 + 1.5 * (q3 - q1))) as whisker_high,
        count(*) filter (drift < q1 - 1.5 * (q3 - q1) or drift > q3 + 1.5 * (q3 - q1)) as n_outliers
    from drifts
    join boxes using (axis)
    where a < b
    group by axis
)
select
    axis,
    coalesce(n_groups, 0) as n_groups,
    coalesce(pairs, 0) as pairs,
    mean,
    min,
    q1,
    median,
    q3,
    max,
    whisker_low,
    whisker_high,
    n_outliers
from axes
left join counts using (axis)
left join boxes using (axis)
left join whiskers using (axis)
order by position;
