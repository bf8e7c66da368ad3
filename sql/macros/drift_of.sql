-- purpose: Symmetric Kullback-Leibler divergence of the distributions of one component. The drift of two groups is
--   the sum over the components, each weighted by its explained_variance_ratio in basis.
-- parameters: p, q: lists of probabilities of equal length, as the column probability of distributions
-- units: nats; 0 for equal distributions, not bounded
-- example: select drift_of([0.5, 0.5], [0.9, 0.1])
create macro drift_of(p, q) as kl_divergence(p, q) + kl_divergence(q, p);
