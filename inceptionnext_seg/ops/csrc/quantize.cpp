// What stands between 8-bit products, on (count, channels) matrices:
//
//     q = round(f(x) scale + shift), in 0..255;  f(x) = x or GELU(x)
//
// Ties are rounded to even, as torch does. NaN has no 8-bit number: which one it gets is left open.
#include "gelu.h"

namespace {

template <class V> inline void store_bytes(uint8_t* target, V v) {
    const auto bits = bit_cast<Words<V>>(v + 12582912.f) & 0xffu;  // 1.5 * 2^23: the nearest integer in the lowest bits
    if constexpr (is_element<V>) *target = uint8_t(bits);
    else {
        using Bytes = typename VectorOfBytes<uint8_t, vector_bytes / 4>::type;
        const Bytes bytes = __builtin_convertvector(bits, Bytes);
        std::memcpy(target, &bytes, sizeof bytes);
    }
}

template <bool with_gelu, class T>
void quantize(const T* x, const float* scale, const float* shift, uint8_t* q, int64_t count, int64_t channels,
              int threads) {
    for_matrix<float>(count, channels, threads, [=](auto tag, int64_t at, int64_t c) {
        using V = decltype(tag);
        V v = load<V>(x + at);
        if (with_gelu) v = v * distribution(v);
        v = v * load<V>(scale + c) + load<V>(shift + c);
        v = v < 0.f ? V() : v;
        v = v > 255.f ? broadcast<V>(255.f) : v;
        store_bytes(q + at, v);
    });
}

}  // namespace

#define QUANTIZE(name, with_gelu, T)                                                                                   \
    extern "C" void name(const T* x, const float* scale, const float* shift, uint8_t* q, int64_t count,                \
                         int64_t channels, int64_t threads) {                                                          \
        quantize<with_gelu>(x, scale, shift, q, count, channels, int(threads));                                        \
    }
QUANTIZE(quantize_f32, false, float)
QUANTIZE(quantize_bf16, false, bf16)
QUANTIZE(gelu_quantize_f32, true, float)
QUANTIZE(gelu_quantize_bf16, true, bf16)
