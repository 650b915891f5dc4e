// The agent's side of a compact diff in another language, built with -O3 -ffast-math on purpose.
//
// stdin:  u32 parameters | u32 tensors | u32 size of each | the base, f32 each; then frames:
//         u32 bytes | a code a tensor | layout u8 | sections, unpacked: u32 bytes and the bytes
// stdout: after each frame the weights, f32 each
// See rl4sys_stream/wire/compact.py and integers.py for what they mean.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

static bool read_all(void *to, size_t bytes) { return fread(to, 1, bytes, stdin) == bytes; }

static uint32_t read_u32() {
  uint32_t value = 0;
  return read_all(&value, sizeof value) ? value : 0;
}

struct Section {
  const uint8_t *data;
  uint32_t bytes;
};

static Section take(const uint8_t *&at) {
  Section found{at + 4, 0};
  memcpy(&found.bytes, at, 4);
  at += 4 + found.bytes;
  return found;
}

// The integers of a frame, one a parameter.
static void unpack(const uint8_t *at, std::vector<int32_t> &steps) {
  const uint8_t layout = *at++;
  size_t n = steps.size();
  std::vector<int8_t> small(n, 0);
  std::vector<size_t> where;  // of each byte, where bytes are not one a parameter
  Section first = take(at);
  if (layout == 1) {
    memcpy(small.data(), first.data, n);
  } else if (layout == 2) {
    Section bytes = take(at);
    size_t next = 0;
    for (size_t i = 0; i < n; i++) {
      int code = (first.data[i / 2] >> (i % 2 * 4)) & 15;
      int value = code >= 8 ? code - 16 : code;
      small[i] = value == -8 ? (int8_t)bytes.data[next++] : (int8_t)value;
    }
  } else {
    Section bytes = take(at);
    size_t position = 0, next = 0;
    for (uint32_t i = 0; i < first.bytes; i++) {
      position += first.data[i];
      if (first.data[i] != 255) small[position++] = (int8_t)bytes.data[next++];
    }
  }
  Section words = take(at);
  size_t next = 0;
  for (size_t i = 0; i < n; i++) {
    steps[i] = small[i];
    if (small[i] == -128) memcpy(&steps[i], words.data + 4 * next++, 4);
  }
}

int main() {
  const uint32_t n = read_u32(), tensors = read_u32();
  std::vector<uint32_t> sizes(tensors);
  std::vector<float> weights(n);
  if (!read_all(sizes.data(), 4 * tensors) || !read_all(weights.data(), 4 * n)) return 1;
  std::vector<int32_t> steps(n);
  std::vector<uint8_t> frame;
  while (uint32_t bytes = read_u32()) {
    frame.resize(bytes);
    if (!read_all(frame.data(), bytes)) return 1;
    unpack(frame.data() + tensors, steps);
    float *w = weights.data();
    const int32_t *d = steps.data();
    for (uint32_t t = 0; t < tensors; t++) {
      const int exponent = (frame[t] & 127) - 24;
      const float step = std::ldexp(1.0f, exponent), inverse = std::ldexp(1.0f, -exponent);
      if (frame[t] & 128)
        for (uint32_t i = 0; i < sizes[t]; i++) w[i] = std::floor(w[i] * inverse + 0.5f) * step;
      for (uint32_t i = 0; i < sizes[t]; i++) w[i] += (float)d[i] * step;
      w += sizes[t];
      d += sizes[t];
    }
    if (fwrite(weights.data(), 4, n, stdout) != n) return 1;
    fflush(stdout);
  }
  return 0;
}
