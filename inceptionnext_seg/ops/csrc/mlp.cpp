// What stands between the matrix products of an MLP: bias and GELU, their gradient, and layer scale with the residual.
// Maps are (count, channels), the channels contiguous.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "lanes.h"

namespace {

// Wide in float; in double, which is for checking, one by one with the library's functions.
template <class E> constexpr bool in_float = std::is_same<E, float>::value;

using wide = lanes_of<float, true>::type;

template <class V> inline V pick(V x, float value) { return x * 0.f + value; }

// erf as a quotient of polynomials, x P(x^2) / Q(x^2) for |x| <= 4, where it is 1 in float: the coefficients of Eigen's
// (Eigen/src/SpecialFunctions). The largest error is 4e-7; that of GELU is |x| / 2 times as much.
template <class V> inline V erf_of(V x) {
    x = x < -4.f ? pick(x, -4.f) : x;
    x = x > 4.f ? pick(x, 4.f) : x;
    const V s = x * x;
    V p = s * -2.72614225801306e-10f + 2.77068142495902e-08f;
    p = p * s + -2.10102402082508e-06f;
    p = p * s + -5.69250639462346e-05f;
    p = p * s + -7.34990630326855e-04f;
    p = p * s + -2.95459980854025e-03f;
    p = p * s + -1.60960333262415e-02f;
    V q = s * -1.45660718464996e-05f + -2.13374055278905e-04f;
    q = q * s + -1.68282697438203e-03f;
    q = q * s + -7.37332916720468e-03f;
    q = q * s + -1.42647390514189e-02f;
    return x * p / q;
}

inline double erf_of(double x) { return std::erf(x); }

// exp(-y) for y >= 0: 2^n times a polynomial on half a power of two around 0.
template <class V, class I> inline V exp_of_negative(V y, I) {
    y = y > 87.f ? pick(y, 87.f) : y;
    const V shifted = y * -1.44269504088896341f + 12582912.f;   // 1.5 * 2^23: rounds to the nearest integer
    const V n = shifted - 12582912.f;
    V r = y * -1.f - n * 0.693145751953125f;
    r = r - n * 1.42860682030941723e-6f;
    V p = r * 1.3981999507e-3f + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    I bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4b400000 + 127) << 23;
    V power;
    std::memcpy(&power, &bits, sizeof power);
    return p * power;
}

inline float exp_of_negative(float y) { return exp_of_negative(y, int32_t()); }
typedef int32_t i32_lanes __attribute__((vector_size(LANE_BYTES)));
inline wide exp_of_negative(wide y) { return exp_of_negative(y, i32_lanes()); }
inline double exp_of_negative(double y) { return std::exp(-y); }

// Normal distribution function and density.
template <class E, class V> inline V distribution(V x) {
    return E(.5) * erf_of(x * E(0.70710678118654752440)) + E(.5);
}

template <class E, class V> inline V density(V x) {
    return E(0.39894228040143267794) * exp_of_negative(E(.5) * x * x);
}

// a = GELU(h + bias).
template <class T, class E = typename compute<T>::type>
void gelu(const T* h, const E* bias, E* a, int64_t count, int64_t channels, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < count; ++row)
        over_channels<E, in_float<E>>(0, channels, [&](auto tag, int64_t c) {
            using V = decltype(tag);
            const V x = load<V>(h + row * channels + c) + load<V>(bias + c);
            store(a + row * channels + c, x * distribution<E>(x));
        });
}

// a = GELU(h + bias), and the gradient to h in the place of that to a.
template <class T, class E = typename compute<T>::type>
void gelu_gradient(const T* h, const E* bias, E* a, E* grad, int64_t count, int64_t channels, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < count; ++row)
        over_channels<E, in_float<E>>(0, channels, [&](auto tag, int64_t c) {
            using V = decltype(tag);
            const int64_t at = row * channels + c;
            const V x = load<V>(h + at) + load<V>(bias + c), below = distribution<E>(x);
            store(a + at, x * below);
            store(grad + at, load<V>(grad + at) * (below + x * density<E>(x)));
        });
}

// out = x + scale (o + bias).
template <class T, class Out, class E = typename compute<T>::type>
void residual(const T* x, const E* o, const E* bias, const E* scale, Out* out, int64_t count, int64_t channels,
              int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < count; ++row)
        over_channels<E, in_float<E>>(0, channels, [&](auto tag, int64_t c) {
            using V = decltype(tag);
            const int64_t at = row * channels + c;
            store(out + at, load<V>(x + at) + load<V>(scale + c) * (load<V>(o + at) + load<V>(bias + c)));
        });
}

}  // namespace

#define GELU(suffix, T)                                                                                             \
    extern "C" void gelu_##suffix(const T* h, const compute<T>::type* bias, compute<T>::type* a, int64_t count,     \
                                  int64_t channels, int64_t threads) {                                              \
        gelu<T>(h, bias, a, count, channels, int(threads));                                                         \
    }                                                                                                               \
    extern "C" void gelu_gradient_##suffix(const T* h, const compute<T>::type* bias, compute<T>::type* a,           \
                                           compute<T>::type* grad, int64_t count, int64_t channels,                 \
                                           int64_t threads) {                                                       \
        gelu_gradient<T>(h, bias, a, grad, count, channels, int(threads));                                          \
    }
#define RESIDUAL(suffix, T, Out)                                                                                    \
    extern "C" void residual_##suffix(const T* x, const compute<T>::type* o, const compute<T>::type* bias,          \
                                      const compute<T>::type* scale, Out* out, int64_t count, int64_t channels,     \
                                      int64_t threads) {                                                            \
        residual<T, Out>(x, o, bias, scale, out, count, channels, int(threads));                                    \
    }
GELU(f32, float)
GELU(bf16, bf16)
GELU(f64, double)
RESIDUAL(f32_f32, float, float)
RESIDUAL(bf16_f32, bf16, float)
RESIDUAL(bf16_bf16, bf16, bf16)
RESIDUAL(f64_f64, double, double)
