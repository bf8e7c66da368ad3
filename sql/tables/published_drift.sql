-- purpose: The drift between tasks, visual categories and tenths of the depth that the authors of CNN Filter DB published,
--   for comparison with a warehouse of the same file (analysis reproduction).
-- grain: one row per axis and ordered pair of groups
-- columns: axis: task, visual_category or depth_decile; a, b: the groups; drift: in nats, read off the figures of the
--   paper (CVPR 2022), good to about 0.006
-- example: from published_drift where axis = 'task' order by drift desc
create table published_drift as
select axis, a::varchar as a, b::varchar as b, drift::double as drift
from csv_drift;
