// What stands between the matrix products of an MLP, and its gradient, on (count, channels) matrices:
//
//     a = GELU(h + bias),  GELU(x) = x P(x),  P(x) = (1 + erf(x / sqrt(2))) / 2
//     dh = da (P(x) + x p(x)),  x = h + bias,  p(x) = exp(-x^2 / 2) / sqrt(2 pi)
//     out = x + scale (o + bias),  the layer scale and the residual
#include "gelu.h"

namespace {

template <class V> inline V density(V x) {
    using E = Element<V>;
    return E(0.39894228040143267794) * exponential(E(-.5) * x * x);
}

template <class T, class E = Compute<T>>
void gelu(const T* h, const E* bias, E* a, int64_t count, int64_t channels, int threads) {
    for_matrix<E>(count, channels, threads, [=](auto tag, int64_t at, int64_t c) {
        using V = decltype(tag);
        const V x = load<V>(h + at) + load<V>(bias + c);
        store(a + at, x * distribution(x));
    });
}

// The gradient to h takes the place of that to a.
template <class T, class E = Compute<T>>
void gelu_gradient(const T* h, const E* bias, E* a, E* grad, int64_t count, int64_t channels, int threads) {
    for_matrix<E>(count, channels, threads, [=](auto tag, int64_t at, int64_t c) {
        using V = decltype(tag);
        const V x = load<V>(h + at) + load<V>(bias + c), below = distribution(x);
        store(a + at, x * below);
        store(grad + at, load<V>(grad + at) * (below + x * density(x)));
    });
}

template <class T, class Out, class E = Compute<T>>
void residual(const T* x, const E* o, const E* bias, const E* scale, Out* out, int64_t count, int64_t channels,
              int threads) {
    for_matrix<E>(count, channels, threads, [=](auto tag, int64_t at, int64_t c) {
        using V = decltype(tag);
        store(out + at, load<V>(x + at) + load<V>(scale + c) * (load<V>(o + at) + load<V>(bias + c)));
    });
}

}  // namespace

#define GELU(suffix, T)                                                                                                \
    extern "C" void gelu_##suffix(const T* h, const Compute<T>* bias, Compute<T>* a, int64_t count, int64_t channels,  \
                                  int64_t threads) {                                                                   \
        gelu<T>(h, bias, a, count, channels, int(threads));                                                            \
    }                                                                                                                  \
    extern "C" void gelu_gradient_##suffix(const T* h, const Compute<T>* bias, Compute<T>* a, Compute<T>* grad,        \
                                           int64_t count, int64_t channels, int64_t threads) {                         \
        gelu_gradient<T>(h, bias, a, grad, count, channels, int(threads));                                             \
    }
#define RESIDUAL(suffix, T, Out)                                                                                       \
    extern "C" void residual_##suffix(const T* x, const Compute<T>* o, const Compute<T>* bias,                         \
                                      const Compute<T>* scale, Out* out, int64_t count, int64_t channels,              \
                                      int64_t threads) {                                                               \
        residual<T, Out>(x, o, bias, scale, out, count, channels, int(threads));                                       \
    }
GELU(f32, float)
GELU(bf16, bf16)
GELU(f64, double)
RESIDUAL(f32_f32, float, float)
RESIDUAL(bf16_f32, bf16, float)
RESIDUAL(bf16_bf16, bf16, bf16)
RESIDUAL(f64_f64, double, double)
