-- purpose: Published numbers beside those of this warehouse: how well the real file reproduces.
-- source: CVPR 2022, arXiv 2203.15331; CVPRW 2022, arXiv 2204.02481; torchconvquality 0.4.0
-- parameters: pairs (varchar, none): the list of pairs of the robustness study, the name of a table or view or the path of
--   a CSV file with the columns a and b, each a model by its model_id, file name or name
-- grain: one row per published number, those that apply first
-- columns: dataset: that it holds for; quantity; item: of what, such as a component, a group or a pair of groups; published;
--   here: the same of this warehouse; difference: here - published; tolerance: difference that rounding and lower
--   precision explain; agrees: whether the difference is within it; verdict: the same in words, or why it does not apply
-- reading: agreement is claimed only of the data that was published. CNN Filter DB v1.0.0 and the robustness data set are
--   known by their numbers of filters and models, which are among the rows; ResNet-18 by a model with the filters of its
--   sixteen 3x3 layers in the order of depth: of several, the one is shown that is nearest to the published numbers, for other
--   training gives the same layers. Visual categories are taken as the file has them, without label_fixes, as published. The
--   drifts of the robustness study are of the models in its list of pairs, without sparse filters and on principal
--   components of the others: here they count all filters, so that no agreement is claimed
-- nulls: here and difference where this warehouse has no such thing; agrees where the number does not apply
-- example: warehouse analyses cnn.warehouse reproduction --set pairs=model_pairs
-- portable: no: order by an aggregate beside a window function: Spark resolves the order after the window
with published as (
    select dataset, quantity, item, value as published, tolerance
    from published_values
    union all
    select 'CNN Filter DB v1.0.0', 'drift by ' || axis, a || ' / ' || b, drift, 0.006
    from published_drift
    where a < b
),
sizes as (
    select
        'n_filters' as quantity,
        'all' as item,
        (select sum(n_filters) from sources)::double as here
    union all
    select 'n_models', 'all', (select count(*) from models)
    union all
    select 'n_layers', 'all', (select count(*) from layers)
),
drifts as (
    select 'drift by task' as quantity, a, b, drift
    from drift(task)
    union all
    select 'drift by visual_category', a, b, drift
    from drift(raw_visual_category)
    union all
    select 'drift by depth_decile', a::varchar, b::varchar, drift
    from drift(depth_decile)
),
-- the study took unknown robustness for robust when it counted filters
robustness as (
    select
        case when robust is distinct from false then 'robust' else 'normal' end as item,
        sum(q.n_filters)::double as n_filters,
        sum(q.n_sparse)::double as n_sparse,
        weighted_mean(q.sparsity, q.n_filters) as sparsity
    from layer_meta
    join layer_quality as q using (layer_id)
    group by all
),
listed as (
    select distinct listed_model
    from (
        select unnest([a::varchar, b::varchar]) as listed_model
        from query_table(coalesce(getvariable('pairs')::varchar, 'model_pairs'))
    )
    where getvariable('pairs')::varchar is not null
),
chosen as (
    select model_id_of(listed_model) as model_id
    from listed
    union
    select model_id
    from models
    where getvariable('pairs')::varchar is null
),
-- data sets are spelled with and without punctuation
robust_drifts as (
    select 'drift' as quantity, stratum as item, drift
    from drift_within(
        robust,
        regexp_replace(lower(training_dataset), '[^a-z0-9]', '', 'g'),
        keep := layer_meta.model_id in (select chosen.model_id from chosen))
    union all
    select 'drift_pairs', grp, drift
    from drift_paired(
        coalesce(getvariable('pairs')::varchar, 'model_pairs'),
        regexp_replace(lower(training_dataset), '[^a-z0-9]', '', 'g'))
),
architectures as (
    select
        model_id,
        list(n_filters order by conv_depth, layer_id) as filters,
        list({'sparsity': sparsity, 'variance_entropy_norm': variance_entropy_norm} order by conv_depth, layer_id) as metrics
    from layers
    join (select * exclude (n_filters) from layer_quality) using (layer_id)
    group by model_id
),
resnets as (
    from architectures
    where
        filters = [
            4096, 4096, 4096, 4096, 8192, 16384, 16384, 16384,
            32768, 65536, 65536, 65536, 131072, 262144, 262144, 262144
        ]
),
resnet_values as (
    select
        model_id,
        item,
        unnest(['sparsity', 'variance_entropy_norm']) as quantity,
        unnest([metrics[position].sparsity, metrics[position].variance_entropy_norm]) as here
    from resnets
    cross join (values ('layer1.0.conv1', 1), ('layer4.1.conv2', 16)) as places(item, position)
),
nearest_resnet as (
    select model_id, count(*) over () as n_candidates
    from resnet_values
    join published using (quantity, item)
    group by model_id
    order by sum(abs(here - published) / tolerance), model_id
    limit 1
),
found as (
    from sizes
    union all
    select 'explained_variance_ratio', component::varchar, explained_variance_ratio
    from basis
    union all
    select 'mean', unnest(range(9))::varchar, unnest(mean)
    from basis_mean
    union all
    select quantity, a || ' / ' || b, drift
    from drifts
    union all
    select unnest(['n_filters', 'n_sparse', 'sparsity']), item, unnest([n_filters, n_sparse, sparsity])
    from robustness
    union all
    from robust_drifts
    union all
    select quantity, item, here
    from resnet_values
    semi join nearest_resnet using (model_id)
),
wanted as (
    select
        dataset,
        max(published) filter (quantity = 'n_filters') as n_filters,
        max(published) filter (quantity = 'n_models') as n_models
    from published
    where item = 'all'
    group by dataset
),
recognised as (
    select
        dataset,
        case
            when wanted.n_filters = own.n_filters and wanted.n_models = own.n_models then null
            else format(
                'does not apply: this warehouse holds {:,} filters of {:,} models, {} has {:,} of {:,}',
                own.n_filters, own.n_models, dataset, wanted.n_filters::bigint, wanted.n_models::bigint)
        end as obstacle,
        null as identity
    from wanted
    cross join (
        select
            (max(here) filter (quantity = 'n_filters'))::bigint as n_filters,
            (max(here) filter (quantity = 'n_models'))::bigint as n_models
        from sizes
    ) as own
    union all
    select
        'ImageNet ResNet-18 of torchvision',
        case when n_candidates is null then 'does not apply: no model here has the layers of ResNet-18' end,
        case
            when n_candidates = 1 then ' (model_id ' || model_id || ')'
            else ' (model_id ' || model_id || ', the nearest of ' || n_candidates || ' with these layers)'
        end
    from (select 1) as always
    left join nearest_resnet on true
),
compared as (
    select
        dataset,
        quantity,
        item,
        published,
        here,
        here - published as difference,
        tolerance,
        case
            when recognised.dataset is null then 'does not apply: there is no telling that data set by its size'
            when obstacle is not null then obstacle
            when quantity in ('drift', 'drift_pairs') and getvariable('pairs')::varchar is null
                then 'does not apply: set pairs to the list of pairs of the study'
            when here is null then 'does not apply: this warehouse has no such group'
            when quantity in ('drift', 'drift_pairs')
                then 'not comparable: published without sparse filters, on components of the others'
        end as obstacle,
        identity
    from published
    left join recognised using (dataset)
    left join found using (quantity, item)
)
select
    dataset,
    quantity,
    item,
    published,
    here,
    difference,
    tolerance,
    case when obstacle is null then abs(difference) <= tolerance end as agrees,
    coalesce(
        obstacle,
        case when abs(difference) <= tolerance then 'agrees' else 'differs' end || coalesce(identity, '')) as verdict
from compared
order by obstacle is not null, dataset, quantity, try_cast(item as integer), item;
