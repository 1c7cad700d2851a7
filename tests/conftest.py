from bayesscale.precision import enable_float64

enable_float64()
