-- purpose: T_H: the variance entropy that n random filters reach, a fit by the authors of CNN Filter DB.
-- parameters: n: number of filters
-- nulls: NULL where n is NULL or 0
-- units: log10, as variance_entropy; below 0 for n = 1 and 2
-- example: select randomness_threshold(64)
create macro randomness_threshold(n) as
    case
        when n > 0
            then 1.2618047::double / (1 + exp(-0.88767525::double * (log2(n) - 2.30436435::double)))
                - 0.31050834::double
    end;
