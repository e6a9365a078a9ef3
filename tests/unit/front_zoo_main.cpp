// A program of somebody else's, linked with the tiny library.
#include <cstdio>
#include <tiny/api.h>

int main() { std::printf("%d\n", tiny_answer()); }
