-- purpose: Tenth of a model's depth in which a layer lies: 1 for [0, 0.1], 2 for (0.1, 0.2], ... 10 for (0.9, 1].
-- parameters: x: relative depth from 0 (first) to 1 (last), as in layers.conv_depth_norm
-- nulls: NULL for NULL and for what lies outside 0 .. 1
-- example: select depth_decile(0.25)
create macro depth_decile(x) as
    -- rounding to 9 digits keeps 0.3 and 0.1 + 0.2 in the same tenth
    case when x between 0 and 1 then greatest(1, ceil(round(x * 10, 9)))::tinyint end;
