// The name in the protos' go_package: their code is generated into this directory. In a project of
// your own, generate with another one (buf.gen.yaml shows how) and name the module as you like.
module drawbridge.example/go

go 1.19
