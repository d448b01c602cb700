// GELU(x) = x P(x),  P(x) = (1 + erf(x / sqrt(2))) / 2
#pragma once

#include "simd.h"

// In float a quotient of polynomials, x A(x^2) / B(x^2) for |x| <= 4, where erf is 1 in float: the coefficients of
// Eigen's (Eigen/src/SpecialFunctions). The largest error is 4e-7; that of GELU is |x| / 2 times as much. In double,
// which is for checking, the library's function.
template <class V> inline V error_function(V x) {
    if constexpr (std::is_same_v<Element<V>, double>) return each_lane(x, [](double lane) { return std::erf(lane); });
    else {
        x = x < -4.f ? broadcast<V>(-4.f) : x;
        x = x > 4.f ? broadcast<V>(4.f) : x;
        const V s = x * x;
        V a = s * -2.72614225801306e-10f + 2.77068142495902e-08f;
        a = a * s + -2.10102402082508e-06f;
        a = a * s + -5.69250639462346e-05f;
        a = a * s + -7.34990630326855e-04f;
        a = a * s + -2.95459980854025e-03f;
        a = a * s + -1.60960333262415e-02f;
        V b = s * -1.45660718464996e-05f + -2.13374055278905e-04f;
        b = b * s + -1.68282697438203e-03f;
        b = b * s + -7.37332916720468e-03f;
        b = b * s + -1.42647390514189e-02f;
        return x * a / b;
    }
}

// Normal distribution function and density.
template <class V> inline V distribution(V x) {
    using E = Element<V>;
    return E(.5) * error_function(x * E(0.70710678118654752440)) + E(.5);
}
