// Lanes: a short vector of the compute type, and loads and stores of float, double and bfloat16 into it.
//
// GCC's and Clang's vector extensions, as wide as the processor that is compiled for: wider ones would be split, slowly.
#pragma once
#include <cstdint>
#include <cstring>

struct bf16 {
    uint16_t bits;
};

template <class T> struct compute { using type = float; };
template <> struct compute<double> { using type = double; };

#if defined(__AVX512F__)
#define LANE_BYTES 64
#elif defined(__AVX__)
#define LANE_BYTES 32
#else
#define LANE_BYTES 16
#endif

// LANE_BYTES of the compute type, or one element for what is left of a row.
template <class T, bool wide> struct lanes_of;
template <> struct lanes_of<float, true> {
    static constexpr int count = LANE_BYTES / 4;
    typedef float type __attribute__((vector_size(LANE_BYTES)));
};
template <> struct lanes_of<double, true> {
    static constexpr int count = LANE_BYTES / 8;
    typedef double type __attribute__((vector_size(LANE_BYTES)));
};
template <> struct lanes_of<float, false> {
    static constexpr int count = 1;
    using type = float;
};
template <> struct lanes_of<double, false> {
    static constexpr int count = 1;
    using type = double;
};

typedef uint16_t u16_lanes __attribute__((vector_size(LANE_BYTES / 2)));
typedef uint32_t u32_lanes __attribute__((vector_size(LANE_BYTES)));

template <class V, class T> inline V load(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class V, class T> inline void store(T* p, V v) { std::memcpy(p, &v, sizeof v); }

template <> inline float load<float, bf16>(const bf16* p) {
    const uint32_t bits = uint32_t(p->bits) << 16;
    float v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}

template <> inline lanes_of<float, true>::type load<lanes_of<float, true>::type, bf16>(const bf16* p) {
    u16_lanes half;
    std::memcpy(&half, p, sizeof half);
    const u32_lanes bits = __builtin_convertvector(half, u32_lanes) << 16;
    lanes_of<float, true>::type v;
    std::memcpy(&v, &bits, sizeof v);
    return v;
}

// Round to nearest, ties to even, as torch does; NaN stays NaN.
template <> inline void store<float, bf16>(bf16* p, float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    p->bits = v != v ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <> inline void store<lanes_of<float, true>::type, bf16>(bf16* p, lanes_of<float, true>::type v) {
    u32_lanes bits;
    std::memcpy(&bits, &v, sizeof bits);
    const u32_lanes nan = (u32_lanes)(v != v);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    bits = (nan & 0x7fc0) | (~nan & bits);
    const u16_lanes half = __builtin_convertvector(bits, u16_lanes);
    std::memcpy(p, &half, sizeof half);
}

// Calls body(value of the lanes' type, channel) over [begin, end): whole vectors first, where `wide`, then one by one.
template <class E, bool wide = true, class Body> inline void over_channels(int64_t begin, int64_t end, Body body) {
    int64_t c = begin;
    if constexpr (wide) {
        using Lanes = lanes_of<E, true>;
        for (; c + Lanes::count <= end; c += Lanes::count) body(typename Lanes::type(), c);
    }
    for (; c < end; ++c) body(E(), c);
}
