import pytest
import torch

from studies.operators.kernels import kernels_of, parse_onednn

ONEDNN_LOG = '''\
onednn_verbose,v1,info,oneDNN v3.7.1
onednn_verbose,v1,primitive,info,template:operation,engine,primitive,implementation,prop_kind,memory_descriptors
onednn_verbose,v1,primitive,exec,cpu,reorder,jit:blk,undef,src:f32::blocked:abcd::f0 dst:f32::blocked:aBcd16b::f0,a,,4x96x56x56,0.4
onednn_verbose,v1,primitive,exec,cpu,convolution,jit_dw:avx512_core,forward_training,src:f32 wei:f32,a,b,g96mb4_ic96oc96,0.5
onednn_verbose,v1,primitive,exec,cpu,convolution,x64:gemm:jit,backward_weights,src:f32 wei:f32,a,b,g96mb4_ic96oc96,0.5
onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,src:f32::blocked:a::f0 dst:bf16::blocked:a::f0,a,,96,0.1
'''     # noqa: E501


def test_onednns_log_tells_the_kernels_and_the_bytes_of_layout_changes():
    implementations, moved = parse_onednn(ONEDNN_LOG)
    assert implementations == ['forward jit_dw:avx512_core', 'weight gradient x64:gemm:jit']
    assert moved == 4 * 96 * 56 * 56 * (4 + 4) + 96 * (4 + 2)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='this torch has no oneDNN')
def test_the_kernels_of_a_convolution_are_found_out(capfd):
    conv, x = torch.nn.Conv2d(16, 16, 3, padding=1), torch.randn(2, 16, 8, 8)
    implementations, moved = kernels_of(lambda: conv(x), 'cpu', lambda: None)
    assert len(implementations) == 1
    assert implementations[0].startswith('forward ')
    assert moved >= 0
    assert 'onednn' not in capfd.readouterr().out
