-- purpose: How far the layers of a random sample drift from all of them: how many layers it takes before a drift says more
--   than the size of the sample. Layers are drawn without replacement, from the rollups.
-- grain: one row per sample size: 1, 2, 5, 10, 20, 50, ... layers below their number
-- parameters: keep: a condition over the columns of layer_meta and layer_quality, which layers are there (default true);
--   replicates: samples of each size (default 20); seed: a number, the same one draws the same (default 0)
-- columns: n_layers: in a sample; n_filters: mean number of filters in it; mean, min, q1, median, q3, max: of the drift
--   between a sample and all layers, in nats
-- nulls: no rows where fewer than two layers are left
-- example: from drift_by_sample_size(keep := task = 'Classification')
create macro drift_by_sample_size(keep := true, replicates := 20, seed := 0) as table
with population as (
    select 'all' as grp, layer_id
    from layer_groups(true, keep := keep)
    -- layers without statistics cannot be drawn
    semi join layer_histograms using (layer_id)
),
sizes as (
    select (unnest([1, 2, 5]) * 10 ** power)::bigint as n_layers
    from range(7) as powers(power)
),
-- md5 is the same everywhere and in every version
ranked as (
    select
        layer_id,
        replicate,
        row_number() over (partition by replicate order by md5(concat_ws(',', seed, replicate, layer_id))) as rank
    from population
    cross join range(
        case when replicates between 1 and 1000 then replicates else error('replicates must be between 1 and 1000') end
    ) as numbers(replicate)
),
draws as materialized (
    select
        'all' as grp,
        n_layers,
        replicate,
        list((rank <= n_layers)::integer order by layer_id) as times,
        row_number() over (order by n_layers, replicate) as sample
    from ranked
    cross join sizes
    where n_layers < (select count(*) from population)
    group by n_layers, replicate
),
resampled as (
    from distributions_resampled('population', 'draws')
),
everything as (
    from distributions_of('population')
),
drifts as (
    select sampled.grp as sample, drift_of_vectors(sampled, whole) as drift
    from drift_vectors('resampled') as sampled
    cross join drift_vectors('everything') as whole
),
drawn as (
    select sample, sum(n) as n_filters
    from (select grp as sample, n from resampled where component = 0)
    group by sample
)
select
    n_layers,
    avg(n_filters) as n_filters,
    avg(drift) as mean,
    min(drift) as min,
    quantile_cont(drift, 0.25) as q1,
    median(drift) as median,
    quantile_cont(drift, 0.75) as q3,
    max(drift) as max
from drifts
join draws using (sample)
join drawn using (sample)
group by n_layers
order by n_layers;
