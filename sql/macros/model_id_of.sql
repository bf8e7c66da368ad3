-- purpose: The model_id of a model that is named by its model_id, its file name (models.model) or its name, or else by the
--   file that it alone came from (models.source). An unknown or ambiguous name is an error that tells what there is. A
--   model_id comes first: digits that are one mean no name.
-- parameters: which: a number or a text
-- nulls: an error for NULL
-- example: select model_id_of(0)
create macro model_id_of(which) as (
    select
        case len(ids)
            when 1 then ids[1]
            when 0 then error(
                'no model is called ''' || coalesce(wanted, 'NULL') || '''; did you mean ''' || closest || '''?')
            else error(
                len(ids) || ' models are called ''' || wanted || '''; choose one of them by its model_id: '
                || array_to_string(ids, ', '))
        end
    from (
        select
            any_value(asked.wanted) as wanted,
            coalesce(
                list(models.model_id) filter (where models.model_id::varchar = asked.wanted),
                list(models.model_id order by models.model_id)
                    filter (where models.model = asked.wanted or models.name = asked.wanted),
                list(models.model_id order by models.model_id) filter (where models.source = asked.wanted),
                []) as ids,
            arg_max(
                coalesce(models.model, models.name, models.model_id::varchar),
                jaro_winkler_similarity(
                    coalesce(models.model, models.name, models.model_id::varchar),
                    coalesce(asked.wanted, ''))) as closest
        -- apart from models, so that which cannot name its columns
        from (select (which)::varchar as wanted) as asked
        cross join models
    )
);
