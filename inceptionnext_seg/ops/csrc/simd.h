// Vectors of the processor's width, the one dialect of all kernels.
//
//     V x = load<V>(p);    store(p, x);
//
// V is Vector<E> or E itself, E = Compute<T> is float or double, T is what memory holds: E, or bf16 for float. A kernel
// is written once, for any V: whole vectors take a row as far as they fit, single elements the rest of it. The
// arithmetic is that of GCC's and Clang's vector extensions: operators work lane by lane, an element in the place of a
// vector stands for all lanes, and `a < b ? x : y` chooses lane by lane.
//
// Names: types are CapWords (but bf16, as float), all else is snake_case.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

// Wider vectors than the processor's are split by the compiler, at a cost.
#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

// Types

struct bf16 {
    uint16_t bits;
};

template <class T> using Compute = std::conditional_t<std::is_same_v<T, bf16>, float, T>;

template <class E, int bytes> struct VectorOfBytes {
    typedef E type __attribute__((vector_size(bytes)));
};
template <class E> using Vector = typename VectorOfBytes<E, vector_bytes>::type;
template <class E> constexpr int lanes = vector_bytes / int(sizeof(E));

template <class V> struct ElementOf {
    using type = std::decay_t<decltype(std::declval<V&>()[0])>;
};
template <> struct ElementOf<float> {
    using type = float;
};
template <> struct ElementOf<double> {
    using type = double;
};
template <class V> using Element = typename ElementOf<V>::type;
template <class V> constexpr bool is_element = std::is_arithmetic_v<V>;

// For V of float: the bits of its lanes, and of bf16 in their place.
template <class V> using Words = std::conditional_t<is_element<V>, uint32_t, Vector<uint32_t>>;
template <class V>
using Halves = std::conditional_t<is_element<V>, uint16_t, typename VectorOfBytes<uint16_t, vector_bytes / 2>::type>;

template <class To, class From> inline To bit_cast(const From& from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class To, class From> inline To convert(From from) {
    if constexpr (is_element<From>) return To(from);
    else return __builtin_convertvector(from, To);
}

// `value` in all lanes; less zero, unlike plus zero, leaves -0 as it is.
template <class V, class E> inline V broadcast(E value) { return value - V(); }

// Memory

template <class V, class T> inline V load(const T* source) {
    if constexpr (std::is_same_v<T, bf16>) {
        Halves<V> halves;
        std::memcpy(&halves, source, sizeof halves);
        return bit_cast<V>(convert<Words<V>>(halves) << 16);
    } else {
        static_assert(std::is_same_v<T, Element<V>>);
        V v;
        std::memcpy(&v, source, sizeof v);
        return v;
    }
}

// To bf16 as torch does: to the nearest, ties to even; NaN becomes 0x7fc0.
template <class T, class V> inline void store(T* target, V v) {
    if constexpr (std::is_same_v<T, bf16>) {
        using W = Words<V>;
        const W bits = bit_cast<W>(v), rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        const Halves<V> halves = convert<Halves<V>>(v == v ? rounded : broadcast<W>(0x7fc0u));
        std::memcpy(target, &halves, sizeof halves);
    } else {
        static_assert(std::is_same_v<T, Element<V>>);
        std::memcpy(target, &v, sizeof v);
    }
}

// Lanes `begin` to `end` alone, where there is no memory for the others; these are zero when loaded.
template <class V, class T> inline V load_part(const T* source, int begin, int end) {
    T part[lanes<Element<V>>] = {};
    std::memcpy(part + begin, source + begin, (end - begin) * sizeof(T));
    return load<V>(part);
}

template <class T, class V> inline void store_part(T* target, V v, int begin, int end) {
    T part[lanes<Element<V>>];
    store(part, v);
    std::memcpy(target + begin, part + begin, (end - begin) * sizeof(T));
}

// `size` elements that begin on a line of the cache, so that no vector lies across two.
template <class T> class Buffer {
public:
    Buffer(int64_t size, T value) : start(static_cast<T*>(::operator new(size * sizeof(T), alignment))) {
        std::fill_n(start, size, value);
    }
    ~Buffer() { ::operator delete(start, alignment); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    T* data() const { return start; }

private:
    static constexpr std::align_val_t alignment{64};
    T* start;
};

// Loops

// Calls body(V(), i) over [begin, end): i is where a whole vector begins while one fits, then a single element.
template <class E, class Body> inline void for_vectors(int64_t begin, int64_t end, Body body) {
    int64_t i = begin;
    for (; i + lanes<E> <= end; i += lanes<E>) body(Vector<E>(), i);
    for (; i < end; ++i) body(E(), i);
}

// Calls body(V(), at, c) over a (count, channels) matrix, `at` = row * channels + c; the threads share the rows. The
// body should capture by value: what it refers to would be read again after each store.
template <class E, class Body> void for_matrix(int64_t count, int64_t channels, int threads, Body body) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < count; ++row)
        for_vectors<E>(0, channels, [=](auto tag, int64_t c) { body(tag, row * channels + c, c); });
}

// Lanes of one vector

template <class V, class Function> inline V each_lane(V v, Function function) {
    if constexpr (is_element<V>) return function(v);
    else {
        for (int i = 0; i < lanes<Element<V>>; ++i) v[i] = function(v[i]);
        return v;
    }
}

template <class V> using Integers = decltype(V() < V());  // as many, and as wide

// Lane i of the result is lane i ^ distance of v: lanes that are `distance` apart, a power of two, change places.
template <int distance, class V, int... i> inline V exchange(V v, std::integer_sequence<int, i...>) {
#if defined(__clang__)
    return __builtin_shufflevector(v, v, (i ^ distance)...);
#else
    return __builtin_shuffle(v, Integers<V>{(i ^ distance)...});
#endif
}

// All lanes of a vector in one, half with half. (Taking halves out of it would keep `v` in memory, loops and all.)
template <class V, int half = lanes<Element<V>> / 2, class Combine> inline Element<V> reduce(V v, Combine combine) {
    if constexpr (half == 0) return v[0];
    else {
        const V other = exchange<half>(v, std::make_integer_sequence<int, lanes<Element<V>>>());
        return reduce<V, half / 2>(combine(v, other), combine);
    }
}

template <class V> inline Element<V> horizontal_sum(V v) {
    return reduce(v, [](V a, V b) { return a + b; });
}
template <class V> inline Element<V> horizontal_max(V v) {
    return reduce(v, [](V a, V b) { return a > b ? a : b; });
}
template <class V> inline Element<V> horizontal_min(V v) {
    return reduce(v, [](V a, V b) { return a < b ? a : b; });
}

// Functions

// e^x for x <= 0; NaN for NaN. In float: relative error below 1e-7 (8.7e-8 measured against double), and 0 where e^x is
// below the least normal number. x = n ln 2 + r with |r| <= ln 2 / 2; the polynomial is the minimax one for e^r,
// 1 + r + r^2 q(r). In double, which is for checking, the library's function.
template <class V> inline V exponential(V x) {
    if constexpr (std::is_same_v<Element<V>, double>) return each_lane(x, [](double lane) { return std::exp(lane); });
    else {
        constexpr float round = 12582912.f;  // 1.5 * 2^23: adding it leaves the nearest integer in the lowest bits
        const V shifted = x * 1.44269504f + round;
        const V n = shifted - round;
        const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first exact
        V q = r * 0.0013814461f + 0.008368781f;
        q = q * r + 0.041668393f;
        q = q * r + 0.1666652f;
        q = q * r + 0.49999994f;
        const V value = q * r * r + r + 1.f;
        const Words<V> power = (bit_cast<Words<V>>(shifted) + 127u) << 23;  // the bits of `round` are shifted out
        return x < -87.3f ? V() : value * bit_cast<V>(power);
    }
}
