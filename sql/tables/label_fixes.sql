-- purpose: The corrections that ingest applies to labels, each with its source. The label as it was stays in
--   models.raw_task and models.raw_visual_category. That empty text, "?" and "nan" mean NULL goes for every text
--   column and needs no row here.
-- grain: one row per correction
-- columns: label: the column of models; pattern: a regular expression that the raw label has to match; model_pattern:
--   one that the model's file name or name has to match; replacement: the label to use; since: version of this list
--   that brought it; source: who says so
-- example: from label_fixes
create table label_fixes as
select *
from (
    values
    (
        'task', 'Segmentation', '', 'Segmentation', 1,
        'CNN Filter DB v1.0.0 labels segmentation models unreliably; the authors'' notebook merges them like this'
    ),
    (
        'visual_category', '^formula$', '', 'fractals', 1,
        'CNN Filter DB v0.1.0 says formula where v1.0.0 says fractals for the same models'
    ),
    (
        'visual_category', '^medical ct$', '(?i)compnet', 'medical mri', 1,
        'CompNet (sagittal) segments magnetic resonance images; issue 1 of CNN Filter DB and the medical follow-up'
    )
) as fixes(label, pattern, model_pattern, replacement, since, source);
